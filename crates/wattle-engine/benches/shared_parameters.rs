//! What networks over shared parameters cost: planning a sampled sub-network beside its training step, a policy that acts
//! between updates beside a frozen one, and a decoder's token beside how many came before it. Argument: threads (default 1).
#![allow(clippy::print_stdout, reason = "a benchmark prints its result")]

#[path = "../tests/networks/decoder.rs"]
#[allow(dead_code, reason = "each test builds some of the networks")]
mod decoder;
#[path = "../tests/networks/elastic.rs"]
#[allow(dead_code, reason = "each test builds some of the networks")]
mod elastic;

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use decoder::Decoder;
use elastic::{Elastic, Fixed, Transformer, View, initial, transformer};
use wattle_engine::{Cpu, Freeze, Plan, PlanCache, PlanOptions, Session, Store};
use wattle_graph::ops::Gemm;
use wattle_graph::{DType, Example, Shape, Tensor};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let threads = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(1);
    let cpu = Arc::new(Cpu::new(threads)?);
    let options = |freeze| PlanOptions { freeze, ..PlanOptions::new(cpu.clone()) };
    supernet(&options(Freeze::None))?;
    policy(&[options(Freeze::All), options(Freeze::None)])?;
    decode(&options(Freeze::All))
}

/// Seconds of each call of `f`, sorted.
fn seconds(calls: usize, mut f: impl FnMut(usize) -> Outcome) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut times = vec![];
    for call in 0..calls {
        let start = Instant::now();
        f(call)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn supernet(options: &PlanOptions) -> Outcome {
    let most = Transformer { layers: 4, width: 256, heads: 8, hidden: 1024 };
    let fixed = Fixed { most, head_width: 32, tokens: 1000, batch: 32, length: 64 };
    let graph = |own: &Transformer| {
        let (network, logits) = transformer(View::Windows, &fixed, own);
        network.training_step(logits)
    };
    let store = Store::new(&initial(&graph(&most)));
    let cache = PlanCache::new(64 << 20);
    let mut held: Option<Session> = None;
    for own in [
        most,
        Transformer { layers: 4, width: 224, heads: 6, hidden: 896 },
        Transformer { layers: 3, width: 192, heads: 4, hidden: 512 },
    ] {
        let graph = graph(&own);
        let cold = seconds(5, |_| Ok(Plan::compile(&graph, &store, options).map(drop)?))?;
        let plan = cache.get(&graph, &store, options)?;
        let warm = seconds(20, |_| Ok(cache.get(&graph, &store, options).map(drop)?))?;
        let start = Instant::now();
        let session = match &mut held {
            Some(session) => session,
            none => none.insert(Session::new(plan.clone(), &store)?),
        };
        session.replan(plan)?;
        let opened = start.elapsed().as_secs_f64();
        let tokens: Vec<i64> = (0..2048).map(|i| i * 7 % 1000).collect();
        session.set_input("x", &Tensor::ints(&tokens))?;
        session.set_input("labels", &Tensor::ints(&tokens))?;
        session.set_input("rate", &Tensor::f32([], vec![1e-3]))?;
        let run = seconds(5, |_| Ok(session.run()?))?;
        let step = run[0];
        println!(
            "{own:?}: step {:.1} ms; planning {:.2} ms ({:.1} %), from the cache {:.3} ms ({:.2} %), session {:.2} ms",
            1e3 * step,
            1e3 * cold[0],
            100.0 * cold[0] / step,
            1e3 * warm[0],
            100.0 * warm[0] / step,
            1e3 * opened,
        );
    }
    Ok(())
}

fn policy(options: &[PlanOptions; 2]) -> Outcome {
    for transpose_b in [false, true] {
        let mut e = Elastic::new("policy", View::Windows);
        let mut x = e.graph.input("x", DType::F32, Shape::known(&[1, 128]));
        for (layer, [inputs, outputs]) in [[128, 128], [128, 128], [128, 16]].into_iter().enumerate() {
            let extents = if transpose_b { [outputs, inputs] } else { [inputs, outputs] };
            let w = e.weight(&format!("w{layer}"), &extents, &extents);
            let b = e.weight(&format!("b{layer}"), &[outputs], &[outputs]);
            let op = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b };
            x = e.apply(op, &[x, w, b]);
            x = if layer < 2 { e.relu(x) } else { x };
        }
        e.graph.output(x);
        let store = Store::new(&initial(&e.graph));
        let mut best = [f64::INFINITY; 2];
        let mut sessions = vec![];
        for options in options {
            sessions.push(Session::new(Plan::compile(&e.graph, &store, options)?, &store)?);
        }
        let noise = Example::noise(&[128, 128], 1);
        for turn in 0..300 {
            store.write("w1", &noise)?;
            for (best, session) in best.iter_mut().zip(&mut sessions) {
                session.set_input("x", &Example::noise(&[1, 128], turn))?;
                // The first run after an update brings in what was written from outside; a session's writes need no copy.
                session.run()?;
                *best = best.min(seconds(5, |_| Ok(session.run()?))?[2]);
            }
        }
        let name = if transpose_b { "[out, in]" } else { "[in, out]" };
        let [frozen, moving] = best.map(|t| 1e6 * t);
        println!(
            "policy, weights {name}: frozen {frozen:.2} us, moving {moving:.2} us, ratio {:.2}",
            moving / frozen
        );
    }
    Ok(())
}

fn decode(options: &PlanOptions) -> Outcome {
    for length in [256, 1024, 4096] {
        let size = Decoder { layers: 4, heads: 8, head_width: 32, tokens: 1000, length };
        let graph = size.step();
        let store = Store::new(&initial(&graph));
        let mut session = Session::new(Plan::compile(&graph, &store, options)?, &store)?;
        let mut at = |place: usize| -> Result<f64, Box<dyn Error>> {
            session.set_input("place", &Tensor::ints(&[place as i64]))?;
            Ok(seconds(20, |_| Ok(session.run()?))?[0])
        };
        let (first, last) = (at(0)?, at(length - 1)?);
        println!("decoder of up to {length} tokens: first {:.1} us, last {:.1} us", 1e6 * first, 1e6 * last);
    }
    Ok(())
}
