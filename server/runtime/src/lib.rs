//! Runs user code behind one seam: the [`crosstie_model::ports::Runtime`] port. One folder per language; a
//! channel never sees which one answers it.

pub mod archive;
pub mod python;
