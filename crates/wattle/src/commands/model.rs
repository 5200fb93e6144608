//! A model as every command takes it: first, or by `--model`.

use std::path::PathBuf;

/// A model of a file.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "which_model", required = true, multiple = false)]
pub struct ModelFile {
    /// The ONNX model.
    #[arg(id = "model", value_name = "MODEL")]
    first: Option<PathBuf>,
    /// The same, as a flag.
    #[arg(id = "model_flag", long = "model", value_name = "MODEL")]
    flag: Option<PathBuf>,
}

impl ModelFile {
    /// The file; one of both is there.
    pub fn path(self) -> PathBuf {
        self.first.or(self.flag).unwrap_or_default()
    }
}

/// A model of a file, or a network by name; the command says whether it may be left out.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "which_network", multiple = false)]
pub struct Network {
    /// An .onnx model, or lenet-300-100, lenet-5, resnet-20, small-conv.
    #[arg(id = "model", value_name = "MODEL")]
    first: Option<String>,
    /// The same, as a flag.
    #[arg(id = "model_flag", long = "model", value_name = "MODEL")]
    flag: Option<String>,
}

/// The names of both arguments, for a group that must be given.
pub const NETWORK: [&str; 2] = ["model", "model_flag"];

impl Network {
    /// The file or the name, if one is given.
    pub fn name(self) -> Option<String> {
        self.first.or(self.flag)
    }
}
