"""lm-evaluation-harness: the engine as one of its models (docs/lm-eval.md). Needs the extra ``eval``.

`attn_sampler.evals.lm_eval.model` is the model, under the name ``attn_sampler``; ``python -m attn_sampler.evals.lm_eval`` is
lm-eval's own command with that name known.
"""
