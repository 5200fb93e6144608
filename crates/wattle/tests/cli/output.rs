//! What people read.

use crate::sandbox::Sandbox;

#[test]
fn every_command_shows_an_example() {
    let sandbox = Sandbox::new();
    for command in [
        "shrink",
        "train",
        "eval",
        "ticket find",
        "profile",
        "run",
        "bench",
        "estimate",
        "reproduce",
        "scaling fit",
        "schedule",
    ] {
        let help = sandbox.text(&format!("{command} --help"));
        assert!(help.contains(&format!("Example: wattle {command} ")), "{help}");
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(Sandbox::new().text("--version"), concat!("wattle ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn profile_names_every_layer() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let text = sandbox.text("profile m.onnx");
    assert_eq!(text.matches("Gemm").count(), 3, "{text}");
    assert!(text.contains("parameters ") && text.contains(" non-zero), MACs "), "{text}");
}
