"""A Databricks workspace on 127.0.0.1, for tests: the REST API that Databricks' own clients call.

It is a double of the wire and of nothing else. What is asked of it that Databricks documents nowhere is an error,
and so is a field that the documented request does not have: what a real workspace would refuse, it refuses.
"""

from fake_workspace.wire import ApiError as ApiError
from fake_workspace.wire import Fault as Fault
from fake_workspace.wire import Reply as Reply
from fake_workspace.wire import Request as Request
from fake_workspace.workspace import FakeWorkspace as FakeWorkspace
