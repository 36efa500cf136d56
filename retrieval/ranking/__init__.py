"""What happens to a ranking between the search and the reader: feedback, reranking, diversity, expansion."""
