"""The policy language: admission, evaluation and formatting of Cedar; the only room that knows cedarpy."""
