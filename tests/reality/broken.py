"""An adapter's module that cannot be imported."""

raise ImportError("the accelerator's driver is not installed")
