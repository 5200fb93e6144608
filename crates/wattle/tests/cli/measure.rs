//! `wattle measure`, `ledger` and `meter serve`, end to end.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::{Sandbox, npy, stderr};

/// `wattle measure` with flags separated by blanks, running a shell script.
pub fn measured(sandbox: &Sandbox, flags: &str, script: &str) -> Command {
    let mut command = sandbox.command(&format!("measure {flags} --"));
    command.args(["sh", "-c", script]);
    command
}

pub fn receipt(sandbox: &Sandbox, name: &str) -> Value {
    serde_json::from_slice(&sandbox.read(name)).expect("a receipt is JSON")
}

/// Sums of the shares, which must be the machine's energy to the microjoule.
pub fn conserved(receipt: &Value) {
    let uj =
        |name: &str| receipt["shares"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {receipt:#}"));
    assert_eq!(uj("process_uj") + uj("other_uj") + uj("idle_uj"), uj("machine_uj"));
}

#[test]
fn streams_and_the_exit_code_pass_through() {
    let sandbox = Sandbox::new();
    let mut child = measured(&sandbox, "--out r.json", "cat; echo err >&2; exit 7")
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("piped").write_all(b"in\0\xff").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"in\0\xff", "untouched, and nothing of ours on stdout");
    assert!(stderr(&output).starts_with("err\n"), "{}", stderr(&output));
    let receipt = receipt(&sandbox, "r.json");
    assert_eq!(receipt["stop_reason"], "failed");
    conserved(&receipt);
}

#[test]
fn commands_that_cannot_be_started_answer_as_a_shell_does() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run("measure -- ./nothing").status.code(), Some(127));
    sandbox.write("data", "x");
    assert_eq!(sandbox.run("measure -- ./data").status.code(), Some(126));
    assert_eq!(sandbox.run("measure").status.code(), Some(2));
    assert_eq!(measured(&sandbox, "", "kill -KILL $$").output().expect("it runs").status.code(), Some(137));
}

#[test]
fn a_signal_reaches_the_command_which_may_answer() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = measured(&sandbox, "", script).spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    let kill =
        Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status().expect("a shell");
    assert!(kill.success());
    assert_eq!(lines.next().expect("a line").expect("text"), "caught");
    assert_eq!(child.wait().expect("it ends").code(), Some(5));
}

#[test]
fn orphans_and_short_lived_children_are_counted() {
    let sandbox = Sandbox::new();
    // Forty quick children, and a grandchild that outlives its parent: together well over 100 ms of work.
    let spin = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";
    let script = format!(
        "for n in 1 2 3 4 5 6 7 8 9 10; do sh -c 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done'; done; \
         (sh -c '{spin}; touch done' &) ; while [ ! -e done ]; do sleep 0.05; done; sleep 0.1"
    );
    let output = measured(&sandbox, "--out r.json", &script).output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let measured_s = receipt(&sandbox, "r.json")["cpu_time"]["value"].as_f64().expect("a number");
    // What the kernel itself says of the same work.
    fs::remove_file(sandbox.path("done")).expect("it was made");
    let timed = Command::new("sh")
        .args(["-c", &format!("{spin}; sleep 0; times")])
        .current_dir(sandbox.path(""))
        .output()
        .expect("a shell");
    assert!(timed.status.success());
    let text = String::from_utf8_lossy(&timed.stdout);
    let user = text.split_whitespace().next().and_then(|t| t.trim_end_matches('s').split_once('m'));
    let alone: f64 = user.and_then(|(_, s)| s.parse().ok()).expect("minutes and seconds");
    assert!(measured_s >= 0.5 * alone && measured_s > 0.02, "{measured_s} s of at least {alone} s");
}

/// A tree of counters; one package of its own.
pub fn counters(sandbox: &Sandbox, energy: u64) {
    let zone = sandbox.path("sys/class/powercap/intel-rapl:0");
    fs::create_dir_all(&zone).expect("a folder");
    for (file, text) in
        [("name", "package-0"), ("energy_uj", &energy.to_string()), ("max_energy_range_uj", "262143328850")]
    {
        fs::write(zone.join(file), text).expect("a file");
    }
}

#[test]
fn counters_are_measured_through_a_wrap_while_the_command_runs() {
    let sandbox = Sandbox::new();
    counters(&sandbox, 262_143_000_000);
    let script = "sleep 0.2; printf 671150 > sys/class/powercap/intel-rapl:0/energy_uj; sleep 0.1";
    let output = measured(&sandbox, "--sysfs sys --interval 3600 --idle-power 0 --out r.json", script)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let receipt = receipt(&sandbox, "r.json");
    assert_eq!(receipt["energy"]["total"]["value"], 1.000001);
    assert_eq!(receipt["energy"]["total"]["source"], "measured:rapl-powercap:package-0");
    assert_eq!(receipt["shares"]["machine_uj"], 1_000_001);
    conserved(&receipt);
}

#[test]
fn labels_reach_the_ledger_and_its_sums_and_every_export_is_written() {
    let sandbox = Sandbox::new();
    for (label, n) in [("a", 2), ("b", 1)] {
        for _ in 0..n {
            assert!(
                measured(&sandbox, &format!("--label project={label}"), ":")
                    .output()
                    .expect("runs")
                    .status
                    .success()
            );
        }
    }
    let sums = sandbox.json("ledger sum --by project");
    assert_eq!((&sums[0]["group"], &sums[0]["receipts"]), (&"a".into(), &2.into()));
    assert_eq!((&sums[1]["group"], &sums[1]["receipts"]), (&"b".into(), &1.into()));
    assert_eq!(sandbox.json("ledger list").as_array().map(Vec::len), Some(3));
    for (filter, numbers) in [
        ("--label project=b", &[3][..]),
        ("--since 1h --label project=a --last 1", &[2]),
        ("--until 1d", &[]),
        ("--since 2000-01-01 --command measure", &[1, 2, 3]),
        ("--command no-such-thing", &[]),
    ] {
        let found = sandbox.json(&format!("ledger list {filter}"));
        let found: Vec<_> =
            found.as_array().expect("a list").iter().map(|line| line["number"].clone()).collect();
        assert_eq!(found, numbers, "{filter}");
    }
    assert_eq!(sandbox.json("ledger sum --label project=a --since 1h")[0]["receipts"], 2);
    assert_eq!(sandbox.text("ledger export csv --label project=b").lines().count(), 2);
    let refused = sandbox.run("ledger list --since yesterday");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("90min, 12h, 7d, 4w"), "{}", stderr(&refused));
    assert_eq!(sandbox.text("ledger export csv").lines().count(), 4);
    assert!(sandbox.text("ledger show --explain carbon").contains("PUE"));
    assert_eq!(sandbox.run("ledger show 9").status.code(), Some(2));
    for (format, start) in [
        ("codecarbon", "timestamp,project_name,"),
        ("openmetrics", "# TYPE wattle_energy_joules counter"),
        ("otlp", "{\"resourceMetrics\""),
        ("model-card", "co2_eq_emissions:\n  emissions: "),
        ("html", "<!DOCTYPE html>"),
    ] {
        let output = measured(&sandbox, &format!("--export {format}=file"), ":").output().expect("it runs");
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(sandbox.read("file").starts_with(start.as_bytes()), "{format}");
    }
    assert!(sandbox.run("ledger export mlflow --out mlruns").status.success());
    assert!(sandbox.path("mlruns/0/meta.yaml").is_file());
}

#[test]
fn each_joule_has_the_carbon_of_its_hour_and_the_rest_stands_beside_it() {
    let sandbox = Sandbox::new();
    // Every year that this test may run in.
    sandbox.write("yearly.csv", "timestamp,g_per_kwh\n2000-01-01T00:00Z,50\n2200-01-01T00:00Z,90\n");
    let flags = "--series yearly.csv --market-intensity 0 --embodied 1300 --wue 1.8 --pue 1 --out r.json";
    let output = measured(&sandbox, flags, "sleep 0.1").output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let r = receipt(&sandbox, "r.json");
    let value =
        |name: &str| r.pointer(name).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {name}: {r:#}"));
    assert_eq!(value("/factors/carbon_intensity/value"), 50.0);
    let kwh = value("/energy/total/value") / 3.6e6;
    assert!((value("/carbon/value") / (50.0 * kwh) - 1.0).abs() < 1e-9);
    assert_eq!(value("/accounts/market_carbon/value"), 0.0);
    assert!((value("/accounts/water/value") / (1.8 * kwh) - 1.0).abs() < 1e-9);
    assert!(value("/accounts/embodied_carbon/value") > 0.0);
    assert!(sandbox.text("ledger show --explain water").contains("WUE"));
    // A series of another time leaves a range, and says so.
    sandbox.write("old.csv", "timestamp,g_per_kwh\n2001-01-01T00:00Z,50\n2001-01-01T01:00Z,90\n");
    let output = measured(&sandbox, "--series old.csv --out r.json", ":").output().expect("it runs");
    assert!(stderr(&output).contains("old.csv does not cover"), "{}", stderr(&output));
    assert_eq!(receipt(&sandbox, "r.json")["factors"]["carbon_intensity"]["high"], 90.0);
    let refused = measured(&sandbox, "--series none.csv", ":").output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn epochs_are_seen_on_stdout_and_forecast() {
    let sandbox = Sandbox::new();
    let script = "for n in 1 2 3; do sleep 0.05; echo epoch $n; done";
    let output =
        measured(&sandbox, "--epochs 30 --epoch-pattern epoch --follow", script).output().expect("it runs");
    assert_eq!(output.stdout, b"epoch 1\nepoch 2\nepoch 3\n");
    assert!(stderr(&output).contains("forecast after 3 epochs: "), "{}", stderr(&output));
}

#[test]
fn a_running_process_can_be_watched() {
    let sandbox = Sandbox::new();
    let mut watched = Command::new("sleep").arg("0.4").spawn().expect("sleep");
    let line = format!("measure --attach {} --out r.json", watched.id());
    let child = sandbox.command(&line).spawn().expect("the binary runs");
    // The watched process must be collected for its number to vanish.
    watched.wait().expect("it ends");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", stderr(&output));
    conserved(&receipt(&sandbox, "r.json"));
    assert_eq!(sandbox.run("measure --attach 4194999").status.code(), Some(2));
}

#[test]
fn a_process_that_has_ended_and_waits_for_its_parent_is_not_watched_for_ever() {
    let sandbox = Sandbox::new();
    let mut ended = Command::new("true").spawn().expect("there is `true`");
    std::thread::sleep(Duration::from_millis(200));
    // Nobody has asked how it ended: it still has its number.
    let output = sandbox.run(&format!("measure --attach {}", ended.id()));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let mut ending = Command::new("sleep").arg("0.3").spawn().expect("sleep");
    let output = sandbox.run(&format!("measure --attach {}", ending.id()));
    assert!(output.status.success(), "{}", stderr(&output));
    ended.wait().and(ending.wait()).expect("they ended");
}

#[test]
fn a_receipt_that_cannot_be_written_does_not_change_the_exit_code() {
    let sandbox = Sandbox::new();
    for (flags, script, code) in [
        ("--out nowhere/r.json", "exit 3", 3),
        ("--out nowhere/r.json", "exit 0", 0),
        ("--export csv=nowhere/r.csv", "exit 5", 5),
    ] {
        let output = measured(&sandbox, flags, script).output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains("nowhere/r."), "{}", stderr(&output));
    }
}

#[test]
fn foreign_text_cannot_move_the_cursor() {
    let sandbox = Sandbox::new();
    let output = sandbox.command("profile").arg("a\u{1b}[2Jb\u{9b}31m.onnx").output().expect("it runs");
    let said = stderr(&output);
    assert!(said.contains("a\u{fffd}[2Jb\u{fffd}31m.onnx") && !said.contains('\u{1b}'), "{said:?}");
    let label = "measure --label x=\u{1b}[31mred --explain energy -- true";
    let output = sandbox.run(label);
    assert!(output.status.success() && !stderr(&output).contains('\u{1b}'), "{:?}", stderr(&output));
}

#[test]
fn one_rank_of_a_node_writes_the_ledger() {
    let sandbox = Sandbox::new();
    for rank in ["0", "1"] {
        let mut command = measured(&sandbox, "--out r.json", ":");
        command.env("SLURM_JOB_ID", "77").env("SLURM_LOCALID", rank);
        assert!(command.output().expect("it runs").status.success());
    }
    let list = sandbox.json("ledger list");
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert_eq!(list[0]["labels"]["slurm_job"], "77");
    let kinds = receipt(&sandbox, "r.json")["warnings"].to_string();
    assert!(kinds.contains("node_shared"), "{kinds}");
}

#[test]
fn the_exporter_answers_on_loopback() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.command("meter serve --listen 127.0.0.1:0").spawn().expect("the binary runs");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("it says where");
    let address = line.trim().trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
    let ask = |path: &str| {
        let mut stream = std::net::TcpStream::connect(&address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    };
    // Clients that open and say nothing, and one that drips, must not keep others waiting.
    let silent: Vec<_> =
        (0..8).map(|_| std::net::TcpStream::connect(&address).expect("it listens")).collect();
    let begun = Instant::now();
    let page = ask("/metrics");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let mut stream = std::net::TcpStream::connect(&address).expect("it listens");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 421 ") && !answer.contains("joules"), "{answer}");
    drop(silent);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("wattle_energy_joules_total{") && page.ends_with("# EOF\n"), "{page}");
}

#[test]
fn whoever_listens_on_the_network_is_told_and_crowds_are_sent_away() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.command("meter serve --listen 0.0.0.0:0").spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut said = || lines.next().expect("a line").expect("text");
    let address = said().trim_start_matches("http://0.0.0.0:").trim_end_matches("/metrics").to_owned();
    let warning = said();
    assert!(warning.contains("warning") && warning.contains("network"), "{warning}");
    let connect = || std::net::TcpStream::connect(format!("127.0.0.1:{address}")).expect("it listens");
    // More than it answers at once, all silent; those go away after two seconds, and then it answers again.
    let silent: Vec<_> = (0..40).map(|_| connect()).collect();
    let begun = Instant::now();
    let answered = std::iter::repeat_with(|| {
        std::thread::sleep(Duration::from_millis(100));
        let mut stream = connect();
        let mut answer = String::new();
        let asked = write!(stream, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
        asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.starts_with("HTTP/1.1 200")
    });
    assert!(answered.take(80).any(|answered| answered), "not answered within {:?}", begun.elapsed());
    drop(silent);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn commands_that_work_for_seconds_carry_a_receipt_and_append_it() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let table = sandbox.json("profile m.onnx");
    assert_eq!(table.get("receipt"), None, "it reads a file");
    for line in ["bench m.onnx --runs 3", "profile m.onnx --measure", "accel map m.onnx"] {
        let document = sandbox.json(&format!("{line} --region FR"));
        assert_eq!(document["receipt"]["schema"], "wattle.receipt/1", "{line}");
        assert_eq!(document["receipt"]["labels"]["region"], "FR", "{line}");
    }
    let kept = sandbox.json("ledger list");
    assert_eq!(kept.as_array().map(Vec::len), Some(3), "{kept}");
    assert!(sandbox.text("ledger list").contains("  profile m.onnx --measure"));
    assert!(sandbox.text("bench m.onnx --runs 3").contains("\n\nThis command itself took:\n\ncost "));
}

/// The commands that the help lists.
fn commands(sandbox: &Sandbox) -> Vec<String> {
    let help = sandbox.text("--help");
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("     "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn no_command_but_serve_opens_a_socket() {
    let sandbox = Sandbox::new();
    if !Command::new("strace").arg("-V").output().is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: no strace on this machine");
        return;
    }
    sandbox.classifier("m.onnx", 10);
    sandbox.two_by_two("two.onnx");
    sandbox.write("x.npy", npy("<f4", "(1, 3)", &[0; 12]));
    sandbox.write(
        "counts.json",
        include_str!("../../../wattle-accel/tests/data/sparse_mobilenet_channel_counts.json"),
    );
    sandbox.write("row.csv", vec!["0.5"; 64].join(",") + "\n");
    let binary = env!("CARGO_BIN_EXE_wattle");
    let lines = [
        "measure --follow -- true",
        "ledger list",
        "ledger sum --by month",
        "ledger show",
        "ledger export otlp",
        "estimate --flops 3.14e23 --device v100",
        "estimate --model m.onnx --threads 1",
        "reproduce all",
        "schedule --series hourly.csv --hours 1",
        "scaling fit points.csv --report fit.html",
        "profile m.onnx",
        "run two.onnx --input x=x.npy --input y=x.npy --out results",
        "bench m.onnx",
        "bench spmm --m 40 --n 20 --k 30 --runs 3",
        "bench m.onnx m.onnx --rounds 1",
        "eval --model m.onnx",
        "predict m.onnx row.csv",
        "data digits --report digits.html",
        "train --model lenet-300-100 --epochs 1 --out run",
        "ticket find --model lenet-300-100 --epochs 1 --levels 1 --out tickets",
        "shrink --model lenet-300-100 --epochs 1 --max-rounds 1 --tolerance 100 --out lean",
        "accel archs",
        "accel estimate m.onnx --report r.html",
        "accel compare m.onnx --arch eyeriss-v1,eyeriss-v2",
        "accel explain m.onnx",
        "accel map m.onnx",
        "accel simulate m.onnx",
        "accel pe-cycles counts.json",
    ];
    let covered = |command: &str| command == "meter" || lines.iter().any(|line| line.starts_with(command));
    let uncovered: Vec<String> = commands(&sandbox).into_iter().filter(|command| !covered(command)).collect();
    assert!(uncovered.is_empty(), "commands that this test does not run: {uncovered:?}");
    sandbox.write("hourly.csv", "timestamp,g_per_kwh\n2026-01-01T00:00Z,1\n2026-01-01T01:00Z,2\n");
    sandbox.write("points.csv", "performance_error,compute_gflop\n0.7,1e9\n0.6,1e10\n0.5,1e11\n0.41,1e12\n");
    for line in lines {
        let output = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=socket,connect,bind", "-o"])
            .arg(sandbox.path("calls"))
            .arg(binary)
            .args(line.split_whitespace())
            .current_dir(sandbox.path(""))
            .env("XDG_DATA_HOME", sandbox.path("data"))
            .env_remove("WATTLE_LEDGER")
            .output()
            .expect("strace runs");
        if stderr(&output).contains("ptrace") {
            eprintln!("SKIPPED: tracing is not permitted here");
            return;
        }
        assert!(output.status.success(), "{line}: {}", stderr(&output));
        let calls = String::from_utf8(sandbox.read("calls")).expect("text");
        let calls: Vec<&str> = calls.lines().filter(|l| l.contains('(')).collect();
        assert!(calls.is_empty(), "`wattle {line}`: {calls:?}");
    }
}

#[test]
fn starting_costs_milliseconds() {
    let sandbox = Sandbox::new();
    let once = |command: &mut Command| {
        let started = Instant::now();
        assert!(command.output().expect("it runs").status.success());
        started.elapsed()
    };
    // The least of several: the machine may be busy with other tests.
    let best = (0..10).map(|_| once(&mut measured(&sandbox, "", ":"))).min().unwrap_or_default();
    assert!(best < Duration::from_millis(250), "{best:?}, debug build and shell included");
}
