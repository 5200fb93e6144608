//! Joules, grams, dollars: meters, estimates, receipts.
