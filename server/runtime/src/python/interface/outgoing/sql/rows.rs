//! Rows and results as Python has them: the classes `Row` and `Result` of the SDK.

use crosstie_model::outgoing::{Columns, SqlResult, SqlRow};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString};

use super::values::to_python;

/// What a call gives of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// All of it.
    All,
    /// The only row.
    One,
    /// The only row, if there is one.
    OneOrNone,
}

impl Shape {
    /// What it gives of `result`.
    ///
    /// # Errors
    /// There is not the one row.
    pub(super) fn of<'py>(self, py: Python<'py>, result: SqlResult) -> PyResult<Bound<'py, PyAny>> {
        let all = result_of(py, result)?;
        match self {
            Self::All => Ok(all),
            Self::One => all.call_method0(intern!(py, "one")),
            Self::OneOrNone => all.call_method0(intern!(py, "one_or_none")),
        }
    }
}

fn class<'py>(
    py: Python<'py>,
    kept: &'static PyOnceLock<Py<PyAny>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    let found =
        kept.get_or_try_init(py, || Ok::<_, PyErr>(py.import("crosstie._sql")?.getattr(name)?.unbind()))?;
    Ok(found.bind(py))
}

fn result_of(py: Python<'_>, result: SqlResult) -> PyResult<Bound<'_, PyAny>> {
    static RESULT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let names = names_of(py, &result.columns);
    let rows = rows_of(py, &names, result.rows)?;
    let columns = PyList::new(py, &names)?;
    class(py, &RESULT, "Result")?.call1((rows, columns, result.affected, result.last_insert_id))
}

/// The columns' names, made once for all rows.
pub(super) fn names_of<'py>(py: Python<'py>, columns: &Columns) -> Vec<Bound<'py, PyString>> {
    columns.iter().map(|name| PyString::new(py, name)).collect()
}

/// A list of rows.
///
/// # Errors
/// A value has no counterpart in Python.
pub(super) fn rows_of<'py>(
    py: Python<'py>,
    names: &[Bound<'py, PyString>],
    rows: Vec<SqlRow>,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for row in rows {
        list.append(row_of(py, names, row)?)?;
    }
    Ok(list)
}

fn row_of<'py>(py: Python<'py>, names: &[Bound<'py, PyString>], row: SqlRow) -> PyResult<Bound<'py, PyAny>> {
    static ROW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let made = class(py, &ROW, "Row")?.call0()?;
    let dict = made.cast::<PyDict>()?;
    for (name, value) in names.iter().zip(row) {
        dict.set_item(name, to_python(py, &value)?)?;
    }
    Ok(made)
}
