#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wattle_fuzz::run("epoch_log", bytes));
