//! Estimates, published figures, scaling fits and schedules, end to end.

use serde_json::Value;

use crate::sandbox::{Sandbox, stderr};

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The value of a quantity object, whose interval and source must be there.
fn quantity(document: &Value, key: &str) -> f64 {
    let object = &document[key];
    let (low, value, high) = (number(&object["low"]), number(&object["value"]), number(&object["high"]));
    assert!(low <= value && value <= high, "{key}: {object}");
    let source = object["source"].as_str().unwrap_or_default();
    assert!(source.contains(':') && !source.starts_with("measured"), "{key}: {object}");
    value
}

fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found / expected - 1.0).abs() <= tolerance, "found {found}, expected {expected}");
}

#[test]
fn gpt3_from_operations_is_355_years_and_4_6_million_dollars() {
    let line = "estimate --flops 3.14e23 --device v100 --achieved 28e12 --price-per-hour 1.5";
    let e = Sandbox::new().json(line);
    close(number(&e["device_years"]), 355.602_667, 1e-8);
    close(number(&e["device_hours"]), 3_115_079.365, 1e-8);
    close(quantity(&e, "cost_usd"), 4_672_619.05, 1e-8);
    assert!(quantity(&e, "energy_kwh") > 0.0 && quantity(&e, "co2e_kg") > 0.0);
    // Nobody said where: the range of the world is visible, and named.
    assert!(number(&e["co2e_kg"]["high"]) > 10.0 * number(&e["co2e_kg"]["low"]));
    let assumed = e["assumed"].as_array().expect("a list");
    assert!(assumed.contains(&"intensity".into()) && assumed.contains(&"pue".into()), "{assumed:?}");
}

#[test]
fn gpt3_from_parameters_and_tokens_is_pattersons() {
    let line = "estimate --params 175e9 --tokens 300e9 --devices 10000 --device v100 --utilisation 0.197 \
                --watts 330 --pue 1.1 --intensity 429";
    let e = Sandbox::new().json(line);
    close(quantity(&e, "flops"), 3.15e23, 1e-9);
    close(quantity(&e, "days"), 14.8, 0.005);
    close(quantity(&e, "energy_kwh"), 1_289_800.0, 0.001);
    close(quantity(&e, "co2e_kg"), 553_300.0, 0.001);
}

#[test]
fn a_place_gives_its_intensity_and_an_unknown_one_is_refused() {
    let sandbox = Sandbox::new();
    let line = "estimate --device-hours 1000 --device a100 --pue 1";
    let france = sandbox.json(&format!("{line} --region FR"));
    let poland = sandbox.json(&format!("{line} --region gcp:europe-central2"));
    close(quantity(&poland, "co2e_kg") / quantity(&poland, "energy_kwh"), 0.723, 1e-9);
    assert!(quantity(&france, "co2e_kg") < 0.15 * quantity(&poland, "co2e_kg"));
    assert!(!france["assumed"].as_array().expect("a list").contains(&"intensity".into()));
    let refused = sandbox.run(&format!("{line} --region Atlantis"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("Atlantis") && stderr(&refused).contains("US-CA"));
}

#[test]
fn explain_derives_every_number_from_sourced_ingredients() {
    let sandbox = Sandbox::new();
    let line = "estimate --device-hours 10 --watts 250..300 --wue 1.8 --embodied 150 --functional-units 100 --explain";
    let e = sandbox.json(line);
    let steps = e["derivation"].as_array().expect("a list");
    let names: Vec<&str> = steps.iter().filter_map(|s| s["name"].as_str()).collect();
    for name in ["power", "it_energy", "pue", "energy", "co2e", "water", "embodied", "sci"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(names.iter().filter(|n| **n == "pue").count(), 1);
    for step in steps {
        assert!(step["result"]["source"].as_str().is_some_and(|s| s.contains(':')), "{step}");
    }
    close(quantity(&e, "water_l"), 2.75 * 1.8, 1e-9);
    let text = sandbox.text(line);
    assert!(text.contains("it_energy x pue") && text.contains("stated by --watts"), "{text}");
}

#[test]
fn the_document_of_an_estimate_has_exactly_these_names() {
    let sandbox = Sandbox::new();
    let names = |line: &str| -> Vec<String> {
        sandbox.json(line).as_object().expect("an object").keys().cloned().collect()
    };
    let mut expected = vec![
        "assumed",
        "co2e_kg",
        "cost_usd",
        "days",
        "device_hours",
        "device_time",
        "device_years",
        "energy_kwh",
        "flops",
        "it_energy_kwh",
        "notes",
        "power_includes",
    ];
    assert_eq!(
        names("estimate --flops 3.14e23 --device v100 --achieved 28e12 --price-per-hour 1.5"),
        expected
    );
    let line = "estimate --params 175e9 --tokens 300e9 --devices 10000 --device v100 --utilisation 0.197 --watts 330";
    assert_eq!(names(line), expected);
    expected.retain(|name| *name != "flops");
    assert_eq!(names("estimate --device-hours 3 --watts 100"), expected);
}

#[test]
fn a_series_gives_the_intensity_from_its_first_row_on_and_the_range_of_starts() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "hourly.csv",
        "timestamp,g_per_kwh\n2026-01-01T00:00Z,200\n2026-01-01T01:00Z,400\n2026-01-01T02:00Z,100\n2026-01-01T03:00Z,100\n",
    );
    let line = "estimate --device-hours 4 --devices 2 --watts 500 --pue 1 --series hourly.csv";
    let e = sandbox.json(line);
    close(quantity(&e, "co2e_kg"), 2.0 * 0.3, 1e-12);
    close(number(&e["co2e_kg"]["low"]), 2.0 * 0.1, 1e-12);
    assert!(!e["assumed"].to_string().contains("\"intensity\""));
    let long = sandbox.run("estimate --device-hours 40 --watts 500 --series hourly.csv");
    assert_eq!(long.status.code(), Some(2));
    assert!(stderr(&long).contains("does not fit"), "{}", stderr(&long));
}

#[test]
fn a_state_has_its_price_and_a_device_its_published_rent() {
    let sandbox = Sandbox::new();
    let e = sandbox.json("estimate --device-hours 1000 --watts 1000 --pue 1 --region US-TX");
    close(quantity(&e, "cost_usd"), 100.4, 1e-9);
    assert!(!e["assumed"].to_string().contains("price"), "{}", e["assumed"]);
    let stated = sandbox.json("estimate --device-hours 1000 --watts 1000 --pue 1 --region US-TX --price 0.5");
    close(quantity(&stated, "cost_usd"), 500.0, 1e-9);
    let rented = sandbox.json("estimate --device-hours 1000 --device v100 --rented");
    assert!(number(&rented["cost_usd"]["low"]) <= 740.0, "interruptible, 2019: {rented}");
    close(quantity(&rented, "cost_usd"), 3060.0, 1e-9);
    let there = sandbox.json("estimate --device-hours 1000 --device h100 --rented --region aws:us-west-2");
    close(quantity(&there, "cost_usd"), 1000.0 * 108.152 / 8.0, 1e-9);
    let france = sandbox.json("estimate --device-hours 1000 --watts 1000 --pue 1 --region FR");
    close(quantity(&france, "cost_usd"), 194.1, 1e-9);
    let refused = sandbox.run("estimate --device-hours 1000 --device h100 --rented --region aws:af-south-1");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--price-per-hour"), "{}", stderr(&refused));
}

#[test]
fn inference_is_per_thousand_requests() {
    let e = Sandbox::new().json("estimate --params 7e9 --tokens 500 --inference --device a100");
    close(quantity(&e, "flops"), 2.0 * 7e9 * 500.0 * 1000.0, 1e-9);
    assert!(e["notes"].to_string().contains("1000 requests"));
}

#[test]
fn what_is_missing_or_contradictory_is_refused() {
    let sandbox = Sandbox::new();
    for (line, word) in [
        ("estimate", "--flops"),
        ("estimate --flops 1e20", "--achieved"),
        ("estimate --flops 1e20 --device a200", "a100"),
        ("estimate --flops 1e20 --device tpuv2", "--achieved"),
        ("estimate --params 1e9", "--tokens"),
        ("estimate --flops 1e20 --device-hours 3", "cannot be used"),
        ("estimate --device-hours 3 --watts 300W", "--watts"),
        ("estimate --device-hours 3 --region FR --intensity 50", "cannot be used"),
    ] {
        let output = sandbox.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(stderr(&output).contains(word), "{line}: {}", stderr(&output));
    }
}

#[test]
fn a_graph_is_estimated_before_it_runs() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let trained =
        sandbox.json("estimate --model m.onnx --train --samples 1000 --epochs 3 --batch 50 --threads 1");
    close(quantity(&trained, "runs"), 60.0, 1e-12);
    let (run, duration) = (quantity(&trained, "run_s"), quantity(&trained, "duration_s"));
    close(duration, 60.0 * run, 1e-9);
    assert!(run > 1e-6 && run < 1.0, "{run}");
    assert!(quantity(&trained, "energy_kwh") > 0.0);
    let served = sandbox.json("estimate --model m.onnx --threads 1");
    assert!(quantity(&served, "run_s") < run, "an inference takes less than a training step of 50");
    let elsewhere = sandbox.json("estimate --model m.onnx --train --samples 1000 --device v100");
    assert!(quantity(&elsewhere, "duration_s") > 0.0);
}

#[test]
fn reproduce_counts_verdicts_and_keeps_the_correction_beside_the_figure() {
    let sandbox = Sandbox::new();
    let all = sandbox.json("reproduce all");
    assert!(number(&all["summary"]["agree_and_read"]) >= 60.0, "{}", all["summary"]);
    assert_eq!(all["papers"].as_array().map(Vec::len), Some(7));
    let text = sandbox.text("reproduce strubell2019");
    assert!(text.contains("656,347") && text.contains("88 times"), "{text}");
    assert!(sandbox.text("reproduce gpt3").contains("355.60"));
}

#[test]
fn thompsons_points_are_the_users_own_and_a_missing_file_is_named() {
    let sandbox = Sandbox::new();
    let output = sandbox.run("reproduce thompson2020 --points nowhere");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("imagenet.csv"));
    assert!(sandbox.text("reproduce thompson2020").contains("--points DIR"));
}

/// error = 2 C^-0.1, wobbling.
fn points() -> String {
    let mut text = "performance_error,compute_gflop,year,model\n".to_owned();
    for i in 0..12 {
        let gflop = 10f64.powf(8.0 + 0.5 * f64::from(i));
        let wobble = 1.0 + 0.04 * f64::from(i * 5 % 7 - 3);
        text += &format!("{},{gflop:e},2020,\"model, {i}\"\n", 2.0 * gflop.powf(-0.1) * wobble);
    }
    text
}

#[test]
fn a_trend_is_projected_in_both_directions_with_its_cost_and_plotted() {
    let sandbox = Sandbox::new();
    sandbox.write("points.csv", points());
    let line = "scaling fit points.csv --target error=0.02 --price-per-hour 2.48 --report fit.html";
    let fit = sandbox.json(line);
    let projection = &fit["projections"][0];
    let x = &projection["log10_gflop"];
    assert!(number(&x["low"]) < 20.0 && 20.0 < number(&x["high"]), "{x}");
    assert!(number(&projection["reverse_log10_gflop"]["value"]) < number(&x["value"]));
    for key in ["flops", "device_time", "energy_kwh", "co2e_kg", "cost_usd"] {
        assert!(quantity(projection, key) > 0.0);
    }
    assert!(number(&fit["fit"]["forward"]["slope_se"]) > 0.0);
    let html = String::from_utf8(sandbox.read("fit.html")).expect("a report is UTF-8");
    assert!(html.contains("<svg") && html.contains("model, 3"));
    for form in ["exponential", "power-law-with-floor"] {
        sandbox.json(&format!("scaling fit points.csv --form {form}"));
    }
}

#[test]
fn without_a_trend_nothing_is_projected() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "flat.csv",
        "performance_error,compute_gflop\n0.70,1e9\n0.72,1e10\n0.69,3e10\n0.73,2e11\n0.70,1e12\n",
    );
    let fit = sandbox.json("scaling fit flat.csv --target error=0.3");
    let projection = &fit["projections"][0];
    assert!(projection["refused"].as_str().is_some_and(|r| r.contains("contains zero")), "{projection}");
    assert!(projection.get("log10_gflop").is_none() && projection.get("cost_usd").is_none());
}

#[test]
fn a_schedule_names_the_best_hours_and_what_they_save() {
    let sandbox = Sandbox::new();
    let mut text = "timestamp,g_per_kwh\n".to_owned();
    for (hour, g) in [400, 300, 100, 500, 90, 200].into_iter().enumerate() {
        text += &format!("2026-01-01T{hour:02}:00Z,{g}\n");
    }
    sandbox.write("hourly.csv", text);
    let plan = sandbox.json("schedule --series hourly.csv --hours 2 --watts 1000 --pue 1");
    assert_eq!(plan["best_start"]["start"], "2026-01-01T04:00Z");
    close(number(&plan["best_start"]["g_per_kwh"]), 145.0, 1e-12);
    close(number(&plan["pause_and_resume"]["saving"]), 1.0 - 95.0 / 350.0, 1e-12);
    close(number(&plan["co2e_g"]["at_once"]), 700.0, 1e-12);
    assert_eq!(plan["stretches"].as_array().map(Vec::len), Some(2));
    let refused = sandbox.run("schedule --series hourly.csv --hours 9");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("does not fit"), "{}", stderr(&refused));
}

#[test]
fn the_page_of_published_figures_is_what_reproduce_prints() {
    let page = include_str!("../../../../docs/results/published-figures.md");
    let printed = Sandbox::new().text("reproduce all");
    let fenced = page.split("```").nth(1).unwrap_or_default();
    assert!(
        fenced.trim() == printed.trim(),
        "docs/results/published-figures.md is out of date: put the output of `wattle reproduce all` into its fence"
    );
}
