"""Token shards in, a model folder out: the training half, and the only home of torch.

Reads data/, writes formats/; meets the engine nowhere. `config` and `plan` need no torch, all else comes with llamita[train].
"""
