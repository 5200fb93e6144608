//! How numbers are crunched: dense and sparse SIMD kernels, each with a scalar twin.
//!
//! A kernel is a function of slices. The central type is [`Cpu`]: which instruction set ([`Isa`]) and which
//! [`Threads`] to use. Every kernel gives the same bits for any number of threads, allocates nothing (scratch memory
//! is passed in; `*_scratch_len` says how much) and panics when slice lengths contradict the stated shape: the caller
//! owns the shapes. Images are NHWC.
//!
//! ```
//! use wattle_kernels::{Cpu, elementwise};
//! let cpu = Cpu::new(1).unwrap();
//! let mut y = [0.0; 3];
//! elementwise::unary(&cpu, elementwise::Unary::Relu, &[-1.0, 0.0, 2.0], &mut y);
//! assert_eq!(y, [0.0, 0.0, 2.0]);
//! ```
//!
//! It deliberately knows nothing of graphs, tensors or memory plans.

pub mod activation;
pub mod arena;
pub mod attention;
pub mod binary;
pub mod conv;
mod crew;
mod dots;
pub mod elementwise;
pub mod gather;
pub mod gemm;
mod igemm;
mod math;
pub mod norm;
pub mod optimizer;
mod outer;
pub mod pack;
pub mod pages;
pub mod peak;
pub mod pool;
pub mod quantize;
pub mod quantized;
pub mod recurrent;
pub mod reduce;
pub mod simd;
pub mod softmax;
pub mod sparse;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod transpose;

pub use activation::Activation;
pub use simd::{Isa, NoSuchIsa};
pub use threads::{Threads, ThreadsError};

/// Names what was built: a hash over the sources of the kernels, the compiler, the target and its features, and the level
/// of optimisation. Two builds of one name give the same bits in the same time on one machine; what is kept between
/// processes and depends on either is keyed by it.
pub const BUILD: &str = env!("WATTLE_KERNELS_BUILD");

/// What kernels run on: an instruction set and threads.
pub struct Cpu {
    /// The instruction set.
    pub isa: Isa,
    /// The threads.
    pub threads: Threads,
}

impl Cpu {
    /// The best instruction set of this machine and `threads` threads.
    pub fn new(threads: usize) -> Result<Self, ThreadsError> {
        Ok(Cpu { isa: Isa::detect(), threads: Threads::new(threads)? })
    }

    /// A chosen instruction set, as tests and benchmarks need.
    pub fn with_isa(isa: Isa, threads: usize) -> Result<Self, ThreadsError> {
        Ok(Cpu { isa, threads: Threads::new(threads)? })
    }
}

#[cfg(test)]
mod tests {
    use super::BUILD;

    #[test]
    fn a_build_has_a_name_that_can_stand_in_a_key() {
        assert!(BUILD.len() == 16 && BUILD.bytes().all(|b| b.is_ascii_hexdigit()), "{BUILD}");
    }
}
