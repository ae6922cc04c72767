"""The commander protocol: text requests over ZMQ, as the existing scripts and GUIs send them."""
