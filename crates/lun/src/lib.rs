//! A logical unit: executes SCSI commands on a backstore.
