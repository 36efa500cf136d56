"""Databricks Vector Search (AI Search), as its REST API shows it: endpoints, indexes, queries."""

from fake_workspace.search.api import VectorSearch as VectorSearch
from fake_workspace.search.index import Index as Index
