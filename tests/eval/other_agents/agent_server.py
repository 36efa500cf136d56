"""`flat_agent` behind MLflow's AgentServer, at a port, until standard input ends."""

from __future__ import annotations

import os
import sys
import threading

import uvicorn
from flat_agent import agent
from mlflow.genai.agent_server import AgentServer, invoke
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse

agent.is_set_up = True  # its server names the experiment, in the environment


@invoke()
def answer(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
    return agent.predict(request)


def end_with_the_test() -> None:
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_the_test, daemon=True).start()
uvicorn.run(AgentServer("ResponsesAgent").app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
