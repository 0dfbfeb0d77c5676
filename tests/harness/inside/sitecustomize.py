"""Imported by Python itself when a worker of the harness starts: so also what a pool without an adapter says first is cut."""

import cutting  # noqa: F401
