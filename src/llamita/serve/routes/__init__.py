"""The routes of the server, a file for each thing that clients ask for. They read requests and write answers, nothing else."""
