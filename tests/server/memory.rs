//! What the server costs, measured in a process of its own.
