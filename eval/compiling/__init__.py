"""Better prompts by DSPy's optimizers, with the proof on questions that they never saw."""
