//! Finding the small network inside the large one.
