"""The control plane: the same workflows over HTTP."""
