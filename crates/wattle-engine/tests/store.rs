//! Parameters that outlive sessions: what one session writes the others see, all assignments of a run take place at once,
//! and nothing but the windows that are assigned is written.

use std::sync::Arc;

use wattle_engine::{
    Cpu, CpuExecutor, EngineError, Executor, Freeze, Plan, PlanCache, PlanOptions, Session, Store,
};
use wattle_graph::ops::{
    Binary, BinaryFunction, Cell, Concat, Conv, ConvTranspose, Direction, Function, Gemm, MatMul, Recurrent,
    Reshape, Sliding, Unary,
};
use wattle_graph::{
    AxisWindow, DType, Example, Graph, Mask, Parameter, Parameters, Role, Shape, Tensor, ValueId, Window,
    interpret,
};

fn options() -> PlanOptions {
    PlanOptions { freeze: Freeze::None, ..PlanOptions::new(Arc::new(Cpu::new(1).expect("one thread"))) }
}

fn session(graph: &Graph, store: &Store) -> Session {
    Session::new(Plan::compile(graph, store, &options()).expect("a plan"), store).expect("a session")
}

fn parameters(tensors: &[(&str, Tensor)]) -> Parameters {
    let mut parameters = Parameters::new();
    tensors.iter().for_each(|(name, tensor)| parameters.insert(*name, tensor.clone()));
    parameters
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::f32([values.len()], values.to_vec())
}

fn add(graph: &mut Graph, a: ValueId, b: ValueId) -> ValueId {
    graph.apply(Binary { function: BinaryFunction::Add }, &[a, b]).expect("they fit")
}

/// A view of the stored tensor `name` of extents `full`.
fn view(graph: &mut Graph, name: &str, axes: Vec<AxisWindow>, full: &[usize]) -> ValueId {
    let parameter = Parameter { tensor: name.into(), window: Window::new(axes), role: Role::Trainable };
    graph.parameter(parameter, DType::F32, full)
}

/// `x + w` for a vector of two.
fn sum_with(name: &str) -> Graph {
    let mut graph = Graph::new("sum");
    let x = graph.input("x", DType::F32, Shape::known(&[2]));
    let w = view(&mut graph, name, vec![], &[2]);
    let y = add(&mut graph, x, w);
    graph.output(y);
    graph
}

/// `w <- w + x`.
fn step_of(name: &str) -> Graph {
    let mut graph = Graph::new("step");
    let x = graph.input("x", DType::F32, Shape::known(&[2]));
    let w = view(&mut graph, name, vec![], &[2]);
    let next = add(&mut graph, w, x);
    graph.assign(w, next).expect("of one type");
    graph
}

#[test]
fn what_a_training_step_writes_the_next_run_of_another_session_sees() {
    let store = Store::new(&parameters(&[("w", vector(&[1.0, 2.0])), ("other", vector(&[0.0]))]));
    let (mut act, mut learn) = (session(&sum_with("w"), &store), session(&step_of("w"), &store));
    let mut frozen = Session::new(
        Plan::compile(&sum_with("w"), &store, &PlanOptions { freeze: Freeze::All, ..options() }).unwrap(),
        &store,
    )
    .unwrap();
    for (run, expected) in [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]].iter().enumerate() {
        act.run().unwrap();
        assert_eq!(act.output::<f32>(0).unwrap(), expected);
        assert_eq!(store.version("w"), Some(1 + run as u64));
        learn.input_mut::<f32>(0).unwrap().copy_from_slice(&[1.0, 2.0]);
        learn.run().unwrap();
    }
    store.write("w", &vector(&[10.0, 20.0])).unwrap();
    act.run().unwrap();
    assert_eq!(act.output::<f32>(0).unwrap(), &[10.0, 20.0]);
    frozen.run().unwrap();
    assert_eq!(frozen.output::<f32>(0).unwrap(), &[1.0, 2.0], "a frozen plan keeps what it was made with");
    assert_eq!(store.version("other"), Some(1));
    assert_eq!(*store.read("w").unwrap(), vector(&[10.0, 20.0]));
}

#[test]
fn clones_of_a_store_share_its_tensors_and_a_new_store_of_its_parameters_does_not() {
    let store = Store::new(&parameters(&[("w", vector(&[1.0, 2.0]))]));
    let (same, other) = (store.clone(), Store::new(&store.parameters()));
    store.write("w", &vector(&[5.0, 6.0])).unwrap();
    assert_eq!(*same.read("w").unwrap(), vector(&[5.0, 6.0]));
    assert_eq!(*other.read("w").unwrap(), vector(&[1.0, 2.0]));
}

#[test]
fn tensors_keep_their_type_and_unknown_names_are_told() {
    let store = Store::new(&parameters(&[("w", vector(&[1.0, 2.0]))]));
    assert!(store.write("w", &vector(&[1.0])).unwrap_err().to_string().contains("f32[2]"));
    assert!(store.write("v", &vector(&[1.0])).unwrap_err().to_string().contains("one of: w"));
    assert!(store.insert("w", Tensor::ints(&[1, 2])).is_err());
    store.insert("v", vector(&[1.0])).unwrap();
    assert_eq!(store.version("v"), Some(1));
    let missing = Plan::compile(&sum_with("u"), &store, &options());
    assert!(matches!(missing.err(), Some(EngineError::Feed { what: "parameter", .. })));
    let mut longer = Graph::new("longer");
    let w = view(&mut longer, "w", vec![], &[3]);
    longer.output(w);
    assert!(Plan::compile(&longer, &store, &options()).is_err(), "a parameter is what its tensor is");
}

/// `online <- online + x; target <- online; back <- target`, and what was there before as outputs.
fn chain() -> Graph {
    let mut graph = Graph::new("chain");
    let x = graph.input("x", DType::F32, Shape::known(&[2]));
    let [online, target, back] = ["online", "target", "back"].map(|n| view(&mut graph, n, vec![], &[2]));
    let next = add(&mut graph, online, x);
    for (to, value) in [(online, next), (target, online), (back, target)] {
        graph.assign(to, value).expect("of one type");
    }
    [online, next, target].into_iter().for_each(|id| graph.output(id));
    graph
}

/// `a <- b; b <- a`.
fn swap() -> Graph {
    let mut graph = Graph::new("swap");
    let [a, b] = ["a", "b"].map(|n| view(&mut graph, n, vec![], &[2]));
    graph.assign(a, b).expect("of one type");
    graph.assign(b, a).expect("of one type");
    graph
}

/// Runs a graph three times here and in the interpreter; outputs and parameters must be the same.
fn agrees(graph: &Graph, mut expected: Parameters, feeds: &[(&str, Tensor)]) {
    for rewrite in [true, false] {
        let store = Store::new(&expected);
        let plan = Plan::compile(graph, &store, &PlanOptions { rewrite, ..options() }).expect("a plan");
        let mut session = Session::new(plan, &store).expect("a session");
        for run in 0..3 {
            feeds.iter().for_each(|(name, tensor)| session.set_input(name, tensor).expect("it fits"));
            session.run().expect("it runs");
            let feeds = feeds.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
            let outputs = interpret(graph, &mut expected, &feeds).expect("it runs");
            let got: Vec<_> = session.outputs().expect("outputs").into_iter().map(|(_, t)| t).collect();
            assert_eq!(got, outputs, "outputs of run {run}");
            assert_eq!(store.parameters(), expected, "parameters after run {run}");
        }
    }
}

#[test]
fn assignments_of_a_run_take_place_at_once_as_in_the_interpreter() {
    let vectors = |names: &[&str]| {
        let tensors: Vec<_> =
            names.iter().enumerate().map(|(i, n)| (*n, vector(&[i as f32, 0.5 - i as f32]))).collect();
        parameters(&tensors)
    };
    agrees(&chain(), vectors(&["online", "target", "back"]), &[("x", vector(&[1.0, 2.0]))]);
    agrees(&swap(), vectors(&["a", "b"]), &[]);
}

#[test]
fn an_element_can_be_assigned_once_in_a_run() {
    let mut graph = Graph::new("twice");
    let x = graph.input("x", DType::F32, Shape::known(&[2]));
    let left = view(&mut graph, "w", vec![AxisWindow::Range(0, 2)], &[4]);
    let middle = view(&mut graph, "w", vec![AxisWindow::Range(1, 3)], &[4]);
    let right = view(&mut graph, "w", vec![AxisWindow::Indices(vec![3, 2])], &[4]);
    let twice = view(&mut graph, "w", vec![AxisWindow::Indices(vec![3, 3])], &[4]);
    assert!(graph.assign(twice, x).is_err(), "a window that shows an element twice");
    graph.assign(left, x).unwrap();
    let error = graph.assign(middle, x).unwrap_err().to_string();
    assert!(error.contains("w window [1:3]") && error.contains("w window [0:2]"), "{error}");
    graph.assign(right, x).unwrap();
    agrees(&graph, parameters(&[("w", vector(&[1.0, 2.0, 3.0, 4.0]))]), &[("x", vector(&[8.0, 9.0]))]);
}

#[test]
fn windows_of_one_tensor_are_one_memory_and_what_is_outside_them_does_not_change() {
    let mut graph = Graph::new("windows");
    let x = graph.input("x", DType::F32, Shape::known(&[2, 3]));
    let corner = view(&mut graph, "w", vec![AxisWindow::Range(0, 3), AxisWindow::Range(0, 2)], &[5, 4]);
    let whole = view(&mut graph, "w", vec![], &[5, 4]);
    let picked =
        view(&mut graph, "w", vec![AxisWindow::Indices(vec![4, 3]), AxisWindow::Range(1, 3)], &[5, 4]);
    let y = graph.apply(MatMul::default(), &[x, corner]).unwrap();
    let next = add(&mut graph, picked, y);
    graph.assign(picked, next).unwrap();
    graph.output(y);
    graph.output(whole);
    let w = Tensor::f32([5, 4], (0..20).map(|i| i as f32 - 7.0).collect());
    agrees(&graph, parameters(&[("w", w)]), &[("x", Tensor::f32([2, 3], vec![1., 2., 3., 4., 5., 6.]))]);
}

#[test]
fn a_new_mask_asks_for_a_new_plan() {
    let store = Store::new(&parameters(&[("w", vector(&[1.0, 2.0]))]));
    let mut act = session(&sum_with("w"), &store);
    act.run().unwrap();
    store.set_mask("w", Some(Mask::from_bools([true, false]))).unwrap();
    assert!(act.run().unwrap_err().to_string().contains("compile the graph again"));
    let mut again = session(&sum_with("w"), &store);
    again.run().unwrap();
    assert_eq!(again.output::<f32>(0).unwrap(), &[1.0, 0.0]);
    store.write("w", &vector(&[3.0, 4.0])).unwrap();
    again.run().unwrap();
    assert_eq!(again.output::<f32>(0).unwrap(), &[3.0, 0.0], "what is masked stays zero");
    assert!(store.set_mask("w", Some(Mask::full(3))).is_err());
}

#[test]
fn typed_access_checks_the_type_of_elements_not_their_size() {
    let store = Store::new(&parameters(&[("w", vector(&[1.0, 2.0]))]));
    let mut session = session(&sum_with("w"), &store);
    assert!(session.input_mut::<i32>(0).is_err() && session.output::<u32>(0).is_err());
    assert!(session.input_mut::<f32>(0).is_ok() && session.output::<f32>(0).is_ok());
}

#[test]
fn a_session_goes_on_with_another_plan_in_the_memory_it_has() {
    let store = Store::new(&parameters(&[("w", vector(&[1.0, 2.0])), ("v", vector(&[-3.0, 4.0]))]));
    let plan = |graph: &Graph| Plan::compile(graph, &store, &options()).expect("a plan");
    let mut session = session(&step_of("w"), &store);
    for graph in [sum_with("v"), step_of("v"), sum_with("v")] {
        session.replan(plan(&graph)).unwrap();
        session.input_mut::<f32>(0).unwrap().copy_from_slice(&[1.0, 1.0]);
        session.run().unwrap();
    }
    assert_eq!(*store.read("v").unwrap(), vector(&[-2.0, 5.0]));
    assert_eq!(session.output::<f32>(0).unwrap(), &[-1.0, 6.0]);
}

#[test]
fn an_executor_takes_and_gives_bytes() {
    let executor = CpuExecutor::new(options(), Arc::new(PlanCache::new(1 << 20)));
    let store = executor.store(&parameters(&[("w", vector(&[1.0, 2.0]))])).unwrap();
    let mut session = executor.compile(&step_of("w"), &store).unwrap();
    let bytes: Vec<u8> = [0.5f32, 0.25].iter().flat_map(|x| x.to_ne_bytes()).collect();
    executor.write(&mut session, 0, &bytes).unwrap();
    executor.run(&mut session).unwrap();
    assert_eq!(*executor.parameters(&store).unwrap().get("w").unwrap().as_ref(), vector(&[1.5, 2.25]));
    let mut seen = executor.compile(&sum_with("w"), &store).unwrap();
    executor.run(&mut seen).unwrap();
    let mut read = [0; 8];
    executor.read(&seen, 0, &mut read).unwrap();
    assert_eq!(read[..4], 1.5f32.to_ne_bytes());
    assert!(executor.read(&seen, 0, &mut [0; 4]).is_err() && executor.read(&seen, 1, &mut read).is_err());
    let error = executor.write(&mut seen, 0, &[0; 4]).unwrap_err().to_string();
    assert!(error.contains("8 bytes of f32[2]"), "{error}");
    assert_eq!(seen.input_index("x").unwrap(), 0);
    assert!(seen.input_index("y").unwrap_err().to_string().contains("one of: x"));
}

#[test]
fn a_node_may_have_any_number_of_operands() {
    let mut graph = Graph::new("many");
    let inputs: Vec<_> =
        (0..200).map(|i| graph.input(format!("x{i}"), DType::F32, Shape::known(&[1]))).collect();
    let y = graph.apply(Concat { axis: 0 }, &inputs).unwrap();
    graph.output(y);
    let mut session = session(&graph, &Store::default());
    for i in 0..200 {
        session.input_mut::<f32>(i).unwrap()[0] = i as f32;
    }
    session.run().unwrap();
    assert_eq!(session.output::<f32>(0).unwrap(), &(0..200).map(|i| i as f32).collect::<Vec<_>>());
}

/// Every kernel that packs its weights: convolutions (plain, transposed tiles, depthwise), a transposed one, products of many
/// rows, a recurrent layer.
fn packing_network() -> Graph {
    let mut graph = Graph::new("packing");
    let x = graph.input("x", DType::F32, Shape::known(&[2, 3, 12, 12]));
    let w = |graph: &mut Graph, name: &str, extents: &[usize]| view(graph, name, vec![], extents);
    let first = w(&mut graph, "stem", &[16, 3, 3, 3]);
    let padded = || Sliding::padded(2, 1);
    let y = graph.apply(Conv { sliding: padded(), groups: 1 }, &[x, first]).unwrap();
    let y = graph.apply(Unary { function: Function::Relu }, &[y]).unwrap();
    let tiles = w(&mut graph, "tiles", &[16, 16, 3, 3]);
    let y = graph.apply(Conv { sliding: padded(), groups: 1 }, &[y, tiles]).unwrap();
    let depthwise = w(&mut graph, "depthwise", &[16, 1, 3, 3]);
    let y = graph.apply(Conv { sliding: padded(), groups: 16 }, &[y, depthwise]).unwrap();
    let point = w(&mut graph, "point", &[24, 16, 1, 1]);
    let y = graph.apply(Conv { sliding: Sliding::padded(2, 0), groups: 1 }, &[y, point]).unwrap();
    let back = w(&mut graph, "back", &[24, 4, 2, 2]);
    let op = ConvTranspose { sliding: Sliding::padded(2, 0), groups: 1, output_padding: vec![0, 0] };
    let y = graph.apply(op, &[y, back]).unwrap();
    let rows = graph.constant(Tensor::ints(&[104, 13]));
    let y = graph.apply(Reshape { allow_zero: false }, &[y, rows]).unwrap();
    let product = w(&mut graph, "product", &[20, 13]);
    let op = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: true };
    let y = graph.apply(op, &[y, product]).unwrap();
    let sequence = graph.constant(Tensor::ints(&[13, 8, 20]));
    let y = graph.apply(Reshape { allow_zero: false }, &[y, sequence]).unwrap();
    let [input, hidden] = [("gates", 20), ("recurrent", 6)].map(|(n, k)| w(&mut graph, n, &[2, 24, k]));
    let op = Recurrent::new(Cell::Lstm { input_forget: false }, Direction::Bidirectional, 6);
    let y = graph.apply_all(op, &[Some(y), Some(input), Some(hidden)], "").unwrap()[0];
    graph.output(y);
    graph
}

#[test]
fn packed_weights_are_those_of_the_last_version_whoever_wrote_it() {
    let graph = packing_network();
    let mut first = Parameters::new();
    for id in graph.parameters() {
        let tensor = &graph.parameter_of(id).unwrap().tensor;
        first.insert(tensor.clone(), Example::noise(&graph.extents(id).unwrap(), id.index() as u32));
    }
    let store = Store::new(&first);
    // A step that writes every tensor: half of what it was.
    let mut halve = Graph::new("halve");
    let half = halve.constant(Tensor::f32([], vec![0.5]));
    for id in graph.parameters() {
        let w =
            view(&mut halve, &graph.parameter_of(id).unwrap().tensor, vec![], &graph.extents(id).unwrap());
        let next = halve.apply(Binary { function: BinaryFunction::Mul }, &[w, half]).unwrap();
        halve.assign(w, next).unwrap();
    }
    let x = Example::noise(&[2, 3, 12, 12], 99);
    let with = |threads: usize, freeze: Freeze| {
        let options = PlanOptions { freeze, ..PlanOptions::new(Arc::new(Cpu::new(threads).unwrap())) };
        let plan = Plan::compile(&graph, &store, &options).unwrap();
        assert!(plan.interpreted().is_empty(), "{:?}", plan.interpreted());
        let mut session = Session::new(plan, &store).unwrap();
        session.set_input("x", &x).unwrap();
        session
    };
    let mut moving = [1, 3].map(|threads| with(threads, Freeze::None));
    let mut step = session(&halve, &store);
    for turn in 0..4 {
        match turn {
            1 => step.run().unwrap(),
            2 => store.write("tiles", &Example::noise(&[16, 16, 3, 3], 5)).unwrap(),
            3 => step.run().unwrap(),
            _ => {}
        }
        let mut frozen = with(1, Freeze::All);
        frozen.run().unwrap();
        let expected = frozen.output::<f32>(0).unwrap();
        assert!(expected.iter().any(|y| *y != 0.0));
        for moving in &mut moving {
            for _ in 0..2 {
                moving.run().unwrap();
                assert_eq!(moving.output::<f32>(0).unwrap(), expected, "turn {turn}");
            }
        }
    }
}
