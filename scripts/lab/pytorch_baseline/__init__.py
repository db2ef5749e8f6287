"""The notebook's program in PyTorch, written afresh from its description, on real torchvision.

`model` is the network, `training` the loop, `pictures` what its `Dataset` does. Needs torch and torchvision (extra
`compare`), which nothing else of this project does. Where the program goes beyond the notebook, it says so.
"""
