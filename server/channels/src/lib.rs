//! crosstie-channels
