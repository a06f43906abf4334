"""`lensmith data`: the verbs about image folders and labels, as one group."""

from lensmith.cli import VERBS
from lensmith.cli.data.agreement import agreement
from lensmith.cli.data.annotations import import_
from lensmith.cli.data.export_labels import export_labels
from lensmith.cli.data.folders import check, fetch, split
from lensmith.cli.data.labels import label_doctor, next_labels
from lensmith.cli.options import function_for, group
from lensmith.config import (
    AgreementSettings,
    CheckSettings,
    FetchSettings,
    ImportSettings,
    LabelDoctorSettings,
    LabelExportSettings,
    SplitSettings,
)

command = group(
    VERBS["data"],
    fetch=function_for(FetchSettings, fetch),
    **{"import": function_for(ImportSettings, import_)},
    check=function_for(CheckSettings, check),
    split=function_for(SplitSettings, split),
    doctor=function_for(LabelDoctorSettings, label_doctor),
    next=next_labels,
    agreement=function_for(AgreementSettings, agreement),
    export=function_for(LabelExportSettings, export_labels),
)
