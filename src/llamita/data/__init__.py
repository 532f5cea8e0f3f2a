"""Documents to token shards on disk: what `llamita prepare` writes and the trainer reads. numpy only, no torch, no model."""
