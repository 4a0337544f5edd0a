"""The domain: constitutions, prompts, generation, pairs, training, evaluation, reports."""
