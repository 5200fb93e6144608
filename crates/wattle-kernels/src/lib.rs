//! How numbers are crunched: dense and sparse SIMD kernels, each with a scalar twin.
