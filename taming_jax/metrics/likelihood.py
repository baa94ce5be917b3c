"""What a prior hears of pictures that it has not seen, and how likely it finds them.

a batch --condition_of--> what is asked for, and how training says it
codes [B,h,w], what is heard --nats_of--> nats per token [B]
"""

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.metrics.asked import as_trained


def condition_of(prior, batch):
    """What is asked for by a batch, and how training says it; None of nothing."""
    kinds = prior.vocabulary.told
    asked = {name: kind.of_batch(batch) for name, kind in kinds.items()} or None
    return asked, asked and as_trained(kinds, asked, batch["index"])


def nats_of(prior, codes, heard) -> np.ndarray:
    """Mean nats per token of codes [B,h,w] under what the prior hears: float32 [B]."""
    return np.asarray(_nll(prior.logits(codes, heard), codes))


@jax.jit
def _nll(logits, codes):
    """[B, T, V] and [B, h, w] -> mean nats per token [B]."""
    log_p = jax.nn.log_softmax(logits)
    tokens = codes.reshape(len(codes), -1, 1)
    return -jnp.take_along_axis(log_p, tokens, axis=-1).mean((1, 2))
