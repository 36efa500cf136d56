"""What MLflow runs to load an agent's model of a column (models from code)."""

import mlflow

from program.spark.agent_model import AgentModel

mlflow.models.set_model(AgentModel())
