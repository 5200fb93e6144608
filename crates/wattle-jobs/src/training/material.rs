//! A model and the samples that it learns from and is judged by.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use wattle_data::{Classes, Divided, ModelNotes, Relabelled, Source, Splits, Table};
use wattle_graph::{DType, Model};
use wattle_train::binding;
use wattle_train::experiment::Experiment;
use wattle_train::network::{self, Init};
use wattle_train::normalised::with_normalisation;
use wattle_train::objective::Loss;
use wattle_train::options::TrainOptions;

use super::data::{DataOptions, dataset, table_for};
use super::learning::{LearningOptions, Lesson};
use super::normalised::{Known, Normalised, NormalisedBy};
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::models;

/// Most samples in a batch that is only looked at.
const EVALUATION_BATCH: usize = 256;

/// A model, samples for it, and what its inputs are normalised with.
pub struct Material {
    /// A model of a file with its weights, or a network by name, freshly initialised.
    pub model: Model,
    /// Whether the model comes from a file.
    pub is_file: bool,
    /// The samples, divided.
    pub data: Divided,
    /// What each float input of the model is normalised with, by its name.
    pub normalised: BTreeMap<String, Normalised>,
    /// What a user should know of the data.
    pub remarks: Vec<String>,
    /// What the model's file says.
    notes: ModelNotes,
    /// Classes of the data that the model's file does not name, although it names some.
    strangers: Vec<String>,
}

impl Material {
    /// Reads both: the file of a model says which columns it takes; a network by name is made for the data.
    ///
    /// # Errors
    /// If one cannot be read, or they do not fit.
    pub fn new(
        name: &str,
        options: &DataOptions,
        learning: &LearningOptions,
        init: Init,
    ) -> Result<Material> {
        let (loss, ignore_index) = (learning.loss.as_ref(), learning.ignored());
        let is_file = super::is_file(name);
        let mut strangers = vec![];
        let (model, table): (Model, Arc<dyn Table>) = if is_file {
            let model = models::load(Path::new(name))?;
            let table = table_for(options, &model, loss, ignore_index)?;
            let notes = ModelNotes::read(&model.metadata)?;
            let table = Relabelled::by_name(table, &notes.classes).unwrap_or_else(|found| {
                strangers = found.names;
                found.table
            });
            if matches!(loss, None | Some(Loss::CrossEntropy(_))) {
                check_fit(&model, &*table)
                    .map_err(|error| unknown_to(&strangers, &*table).unwrap_or(error))?;
            }
            (model, table)
        } else {
            if let Some(option) = options.chosen_column() {
                let found =
                    format!("`{name}` is made for all columns of its data; expected an .onnx model here");
                return Err(JobError::option(option, found));
            }
            let data = dataset(options, loss)?;
            let outputs = data.targets.class_count().unwrap_or(1);
            let model = network::build(name, &data.shape, outputs, init, learning.seed)?;
            (model, Arc::new(data))
        };
        let splits = Splits::new(&*table, &options.split())?;
        let notes = ModelNotes::read(&model.metadata)?;
        let known =
            Known { notes: &notes, asked: options.normalise.as_ref(), table: &*table, train: splits.train() };
        let mut remarks = table.remarks().to_vec();
        let (normalised, constants) = normalise(&model, &known, options.floats_are_final()?, &mut remarks)?;
        remarks.extend(other_classes(&notes, &*table));
        if let Some(path) = &learning.teacher {
            remarks.extend(other_lessons(&models::load(path)?, &normalised)?);
        }
        let data = Divided { table, splits, normalisation: constants };
        Ok(Material { model, is_file, data, normalised, remarks, notes, strangers })
    }

    /// What the samples say of what is to be learnt of them.
    pub fn lesson(&self) -> Lesson {
        let table = &self.data.table;
        let is_whole = table.columns().last().is_some_and(|column| !column.dtype.is_float());
        let columns = table.columns().iter().enumerate().skip(table.inputs());
        Lesson {
            has_classes: table.classes().is_some() || is_whole,
            ignored: table.ignored(),
            targets: columns.map(|(at, c)| (table.own_name(at).to_owned(), c.name.clone())).collect(),
        }
    }

    /// Refuses samples of classes that the model's file does not name: whoever does not train has no answer for them.
    ///
    /// # Errors
    /// Then, with their names.
    pub fn check_classes(&self) -> Result<()> {
        unknown_to(&self.strangers, &*self.data.table).map_or(Ok(()), Err)
    }

    /// The training of the model, judged on the validation part where there is one.
    ///
    /// # Errors
    /// If there are too few samples for a batch.
    pub fn experiment(&self, options: &TrainOptions, env: &Env) -> Result<Experiment> {
        let source = self.data.training(options.batch, options.seed, options.augmentation)?;
        let mut experiment = Experiment::new(self.model.clone(), source, options.clone(), env.plan_options());
        let validation = self.data.splits.validation();
        if !validation.is_empty() {
            experiment.validation = Some(part(&self.data, validation)?);
        }
        Ok(experiment)
    }

    /// What is written of a trained model: its notes say what its inputs are normalised with and which classes it tells
    /// apart. With `nodes` it normalises its inputs itself.
    ///
    /// # Errors
    /// If the constants do not fit the model's inputs.
    pub fn noted(&self, trained: &Model, nodes: bool) -> Result<Model> {
        let mut notes = self.notes.clone();
        for (input, normalised) in &self.normalised {
            notes.normalisation.insert(input.clone(), normalised.constants.clone());
        }
        if let Some(classes) = self.data.table.classes() {
            notes.classes = classes.names.to_vec();
        }
        let mut model = trained.clone();
        notes.write(&mut model.metadata);
        for (input, normalised) in self.normalised.iter().filter(|(_, n)| nodes && !n.is_identity()) {
            model = with_normalisation(&model, input, &normalised.constants, normalised.full_scale)
                .map_err(|error| JobError::from(error).of("with_normalisation"))?;
        }
        Ok(model)
    }
}

/// Some samples as they are, each once.
///
/// # Errors
/// If there are none.
pub fn part(data: &Divided, samples: &[u32]) -> Result<Arc<dyn Source>> {
    if samples.is_empty() {
        return Err(empty(&*data.table));
    }
    Ok(data.part(samples, samples.len().min(EVALUATION_BATCH))?)
}

/// The test part, for the one look at the end: there is no other after it.
///
/// # Errors
/// If it is empty.
pub fn test(data: Divided) -> Result<Arc<dyn Source>> {
    match data.splits.test_count() {
        0 => Err(empty(&*data.table)),
        count => Ok(data.test(count.min(EVALUATION_BATCH))?),
    }
}

fn empty(table: &dyn Table) -> JobError {
    JobError::at(table.name(), "this part of the data has no samples")
}

/// Constants of columns, by their names.
type Constants = BTreeMap<String, wattle_data::Normalisation>;

/// What the model's float inputs are normalised with, by the names of the inputs and by those of the columns that feed
/// them. One choice for all is meant for measurements; with a single input it is meant for that, whatever its numbers.
fn normalise(
    model: &Model,
    known: &Known<'_>,
    floats_are_final: bool,
    remarks: &mut Vec<String>,
) -> Result<(BTreeMap<String, Normalised>, Constants)> {
    let (mut normalised, mut constants) = (BTreeMap::new(), BTreeMap::new());
    let inputs = model.graph.inputs();
    for input in inputs.iter().map(|&id| model.graph.label(id)) {
        let columns = known.table.columns();
        let Some(place) = binding::column_of(&model.graph, &input, columns) else { continue };
        if columns[place].dtype != DType::F32 {
            continue;
        }
        let is_measured = known.table.is_measured(place);
        let asked = known.asked.filter(|_| is_measured || inputs.len() == 1);
        let is_final = floats_are_final && known.table.full_scale(place) == 1.0;
        let (found, told) = Known { asked, ..*known }.input(&input, place, is_measured && !is_final)?;
        remarks.extend(told);
        constants.insert(columns[place].name.clone(), found.constants.clone());
        normalised.insert(input, found);
    }
    if let Some(choice) = known.asked.filter(|_| normalised.is_empty()) {
        let found = format!("`{choice}`, but the model has no float input that samples feed");
        return Err(JobError::option("normalise", found));
    }
    Ok((normalised, constants))
}

/// A sentence where a teacher's file says that its input is normalised otherwise than the student's, which it is fed.
fn other_lessons(teacher: &Model, normalised: &BTreeMap<String, Normalised>) -> Result<Option<String>> {
    let notes = ModelNotes::read(&teacher.metadata)?;
    let fed = |input: &str| match normalised.get(input) {
        None if normalised.len() == 1 && teacher.graph.inputs().len() == 1 => normalised.values().next(),
        found => found,
    };
    let differs = notes.normalisation.iter().find_map(|(input, constants)| {
        let student = fed(input)?;
        let taught = Normalised {
            constants: constants.clone(),
            full_scale: student.full_scale,
            source: NormalisedBy::Metadata,
        };
        (!taught.is_same(student)).then_some((input, taught))
    });
    Ok(differs.map(|(input, taught)| {
        format!("the teacher is fed what the student is fed; its file says of its input `{input}`: {taught}")
    }))
}

/// A sentence where the classes of the data are not those that the model's file names, or the first of them.
fn other_classes(notes: &ModelNotes, table: &dyn Table) -> Option<String> {
    let differ = |found: &Classes<'_>| !notes.classes.is_empty() && !notes.classes.starts_with(found.names);
    let classes = table.classes().filter(differ)?;
    let listed = |names: &[String]| {
        let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        if names.len() > 5 { format!("{shown} and {} more", names.len() - 5) } else { shown }
    };
    Some(format!(
        "the classes of {} are {}; the model's file says {}",
        table.name(),
        listed(classes.names),
        listed(&notes.classes)
    ))
}

/// The refusal of classes that a model's file does not name; none where there are none.
fn unknown_to(strangers: &[String], table: &dyn Table) -> Option<JobError> {
    let named = strangers.iter().take(5).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let verb = if strangers.len() == 1 { "is" } else { "are" };
    (!strangers.is_empty()).then(|| {
        let found = format!(
            "{named} {verb} not among the classes that the model's file names; \
             expected only those: leave the others out, or train a model on all of them"
        );
        JobError::at(table.name(), found)
    })
}

/// Refuses a model that does not fit the data before anything is computed: samples, and an output for each class.
///
/// # Errors
/// If a column does not fit its input, or a class has no output.
fn check_fit(model: &Model, table: &dyn Table) -> Result<()> {
    let refuse = |found: &dyn std::fmt::Display| JobError::at("the model", found);
    let bound = binding::bind(model, table.columns(), 1).map_err(|e| refuse(&e))?.model.graph;
    let Some(&output) = bound.outputs().first() else { return Ok(()) };
    let (Ok(extents), Some(classes)) = (bound.extents(output), table.classes()) else { return Ok(()) };
    let classes = classes.names.len();
    match extents[..] {
        [_, width] if width < classes => Err(refuse(&format_args!(
            "it has {width} outputs; {} has {classes} classes; expected one output for each class",
            table.name()
        ))),
        _ => Ok(()),
    }
}
