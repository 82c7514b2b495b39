"""Students: families, tokens, the DeepSpeed loop and decoding. The only importer of torch, transformers and deepspeed."""
