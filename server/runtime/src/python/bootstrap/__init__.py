"""The Python half of the runtime: private, loaded from memory, imported by nobody but the runtime."""
