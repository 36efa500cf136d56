"""What MLflow runs to load a logged agent (models from code). Import `program.agent` for everything else."""

import mlflow

from program.agent import CiteqaAgent

mlflow.models.set_model(CiteqaAgent())
