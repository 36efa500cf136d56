"""Verdicts of MLflow's language-model judges on what is answered, kept beside the answers. Optional."""
