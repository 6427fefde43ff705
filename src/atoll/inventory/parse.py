"""Text of nvidia-smi, lscpu and lspci -> Box."""
