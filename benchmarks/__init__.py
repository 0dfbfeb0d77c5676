"""remuda, other process pools and the bare limits, measured side by side: what `remuda bench` runs.

What makes the numbers mean something:

* **Ratios, not times.** What is compared ran in the same run, on the same machine, in turns; the order is
  reversed in every other round. A busy machine is unfair to all alike.
* **A fresh process for each.** A round of a subject is a driver process of its own (`driver.py`), so that
  nobody's threads, descriptors or memory are in another's way, and what hangs is killed.
* **Two modes.** *Pinned*: the whole tree of processes on one core. There only work and context switches
  count, and the numbers are steady; designs are compared there. *Free*: as the scheduler likes it.
* **Whatever was not measured is said.** A peer that is not installed is *absent*; one that failed shows its
  error; neither becomes a number.

`subjects.py` says what is measured against what (`ours.py`, `peers.py`, `limits.py`), `measures.py` what is
measured of each, `rounds.py` runs it all, `results.py` has the statistics, `budgets.py` and `gate.py` judge,
`report.py` and `chart.py` show. A worker imports `tasks.py` only.

The other programs in this folder answer one question each, and are run by hand.
"""
