"""Does a trap matter in this model? Take it out, run the model, and measure what changes; repair what is broken.

`ablate` needs the extra `ablation` (torch, transformers, accelerate, tokenizers); `repair` without a text needs none.
"""
