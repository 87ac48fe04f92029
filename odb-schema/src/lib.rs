//! crosstie-odb
