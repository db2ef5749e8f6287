"""The comparison with PyTorch: the same weights and batches on both sides, and every number held against the other.

`cases` makes weights and pictures up, `jax_side` and `torch_side` run them and return a `Record` each; `exact`
compares these, `whole_job` trains both sides on prepared data sets. Only `torch_side` and `whole_job`'s PyTorch part
need torch: the golden tests run `jax_side` alone.
"""
