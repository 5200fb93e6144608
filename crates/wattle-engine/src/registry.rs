//! Kernels of other crates: which code runs which custom operator.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use wattle_graph::{CustomOperator, Op};

use crate::kernel::{Bound, Site};

/// Answers with a kernel, or not: then the operator's definition runs.
type Binder = dyn Fn(&Site<'_>, &dyn Any) -> Option<Bound> + Send + Sync;

/// The binders of custom operators, by the type of the operator.
#[derive(Clone, Default)]
pub struct Registry {
    binders: BTreeMap<TypeId, (String, Arc<Binder>)>,
}

impl Registry {
    /// No binders: every custom operator runs by its definition.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Lets `bind` answer for the custom operator `O`; a later answer for the same operator replaces an earlier one.
    ///
    /// `identity` names the code, its version included: `acme-swirl-f32 2`. It enters the keys of cached plans and of runs,
    /// so it changes when the bits that the kernel computes may have changed.
    pub fn with<O: CustomOperator>(
        mut self,
        identity: impl Into<String>,
        bind: impl Fn(&Site<'_>, &O) -> Option<Bound> + Send + Sync + 'static,
    ) -> Registry {
        let binder = move |site: &Site<'_>, op: &dyn Any| bind(site, op.downcast_ref()?);
        self.binders.insert(TypeId::of::<O>(), (identity.into(), Arc::new(binder)));
        self
    }

    /// The identities of all kernels, sorted: what enters keys.
    pub fn identities(&self) -> Vec<&str> {
        let mut identities: Vec<&str> =
            self.binders.values().map(|(identity, _)| identity.as_str()).collect();
        identities.sort_unstable();
        identities
    }

    /// The kernel of a custom operator at this site, if there is one.
    pub(crate) fn bind(&self, site: &Site<'_>) -> Option<Bound> {
        let Op::Custom(op) = &site.node.op else { return None };
        let op: &dyn Any = &**op;
        let (_, binder) = self.binders.get(&op.type_id())?;
        binder(site, op)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.identities()).finish()
    }
}
