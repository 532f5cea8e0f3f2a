"""The bench: how fast, how soon and how small, for our engine and for peers that do the same work in the same minutes.

protocol.py says what is measured, subject.py which model, own.py measures our engine, peers.py the others, witness.py whole
processes; rounds.py runs them in turn and report.py makes one plain dictionary of it. Prints nothing; cli/bench.py does.
"""
