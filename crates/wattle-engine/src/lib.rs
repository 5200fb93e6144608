//! How a graph is run: planning, sessions, training steps.
