"""The report of a run: one HTML page that needs nothing but itself.

write_report(ReportData(title="...", evaluation=result, ...), Path("report.html"))
"""

from ccai_core.report.data import ReportData
from ccai_core.report.page import headlines, render_report, write_report

__all__ = ["ReportData", "headlines", "render_report", "write_report"]
