//! Phases, journal, ownership, clean-up, resume.

pub mod record;
