"""Every error that a user can cause or must act on.

    CiteqaError                 catch this at an edge: its text is one line, meant for a person
    ├── ConfigurationError      a setting is unknown, of the wrong type, or contradicts another
    ├── DataError               what was read is not usable as it is
    │   ├── CorpusError         a document, a folder of documents, or their format
    │   └── GroundTruthError    a question set, or gold that names what does not exist
    ├── RetrievalError          a search could not be done
    │   ├── IndexMissingError   there is no index there yet
    │   ├── IndexUnusableError  there is one, but foreign, newer, older or corrupt
    │   ├── ServiceUnavailableError  what is searched is elsewhere, and busy, failing or away: later it may work
    │   ├── EmbeddingError      the embedding model could not be reached or did not answer usably
    │   └── FilterError         a filter is malformed
    ├── RequestError            a question or request cannot be answered as it was put
    ├── WorkspaceError          a Databricks workspace refused, or could not be reached
    ├── DeploymentError         a deployment was not begun, or ended half-way: what is there, and how to go on
    ├── LanguageModelError      the language model could not be reached or did not answer usably
    ├── AgentError              an agent that is evaluated could not be loaded or reached, or answered without evidence
    ├── ProgramStateError       a saved program does not fit, or is not one of ours
    ├── StorageError            a disk or store refused a read or write
    └── RunStoppedError         an evaluation stopped early, with its reason; what was done is kept

Programming errors stay what they are (`ValueError`, `TypeError`, …) and show their trace.
"""

from __future__ import annotations


class CiteqaError(Exception):
    """Something that a person can mend: the message says what is wrong, where, and what to do."""


class ConfigurationError(CiteqaError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(CiteqaError):
    """What was read is not usable as it is."""


class CorpusError(DataError):
    """A document, a folder of documents, or their format is not usable."""


class GroundTruthError(DataError):
    """A question set is malformed, or its gold names what does not exist."""


class RetrievalError(CiteqaError):
    """A search could not be done."""


class IndexMissingError(RetrievalError):
    """There is no index at the place that was named."""


class IndexUnusableError(RetrievalError):
    """There is an index, but it is foreign, newer, older or corrupt."""


class ServiceUnavailableError(RetrievalError):
    """What is searched is elsewhere, and busy, failing or away: later it may work."""


class EmbeddingError(RetrievalError):
    """The embedding model could not be reached or did not answer usably."""


class FilterError(RetrievalError):
    """A metadata filter is malformed."""


class RequestError(CiteqaError):
    """A question or request cannot be answered as it was put."""


class WorkspaceError(CiteqaError):
    """A Databricks workspace refused what was asked of it, or could not be reached."""


class DeploymentError(CiteqaError):
    """A deployment was not begun or ended half-way; the message says what exists, and how to go on."""


class LanguageModelError(CiteqaError):
    """The language model could not be reached or did not answer usably.

    `kind` says how, where it is known: `auth`, `rate_limit`, `timeout`, `transport` or another of DSPy's codes.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class AgentError(CiteqaError):
    """An agent that is evaluated could not be loaded or reached, or answered without evidence."""


class ProgramStateError(CiteqaError):
    """A saved program does not fit this program, or is not one of ours."""


class StorageError(CiteqaError):
    """A disk or store refused a read or write."""


class RunStoppedError(CiteqaError):
    """An evaluation stopped early, for the reason it states; what was done is kept."""
