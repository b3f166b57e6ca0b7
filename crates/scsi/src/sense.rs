//! Sense: why a command ended in CHECK CONDITION (SPC-4 4.5). A sense is data, not an error.

/// Sense key, additional sense code and qualifier, with what the key says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key (SPC-4 table 48), 0 to 15.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// INFORMATION field: for a miscompare the offset in bytes, for a medium error the LBA.
    pub information: Option<u64>,
    /// Sense-key specific field: the field of the CDB or parameter list that was wrong.
    pub field: Option<FieldPointer>,
}

/// Where an illegal field is (SPC-4 4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPointer {
    /// In the CDB (true) or in the parameter list.
    pub in_cdb: bool,
    /// Offset of the field's first byte.
    pub byte: u16,
    /// Its most significant bit within that byte, where that says more.
    pub bit: Option<u8>,
}
