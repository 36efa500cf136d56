"""Find passages: documents, chunking, the embedded index, the retriever protocol. Knows no language model."""

from retrieval.types import Document, Filters, Passage, Retriever

__all__ = ["Document", "Filters", "Passage", "Retriever"]
